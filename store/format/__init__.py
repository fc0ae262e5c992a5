"""The store's format, version 1 (docs/format.md): attributes, arrays and their checks, without input or output.

| file   | input               | does                                             | output                       |
|--------|---------------------|--------------------------------------------------|------------------------------|
| schema | values              | types of the attributes and their limits         | `StoreSchema`, `CommitRecord` |
| parse  | JSON from anywhere  | converts it to these types, strictly             | the same                     |
| arrays | numpy arrays        | encodes them as Zarr objects; looks up keys      | bytes by path                |
| checks | label maps, samples | checks values against the format                 | None or a problem            |
"""
