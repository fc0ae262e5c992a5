"""The files in which ReLabel's authors published their maps: reading them into a store, writing a store as such files.

A published map is `<class folder>/<name>.pt`, one tensor [2, K, A, B] of floats: scores, then class ids.
A file does not say whether its cells are ordered as (y, x) or as (x, y); docs/published_maps.md says why that matters.

| file      | input                       | does                                            | output         |
|-----------|-----------------------------|-------------------------------------------------|----------------|
| files     | bytes of a `.pt`, and back  | loads without running code, checks values       | `PublishedMap` |
| origin    | what the files do not say   | names the network, its classes, preprocessing   | `StoreSchema`  |
| names     | sample keys, names of maps  | refuses unsafe names, indexes maps by hash      | `MapFile`      |
| source    | a folder or tar of `.pt`    | looks up, reads and assigns the maps of samples | bytes          |
| verdict   | votes of boxes or images    | sign of their sum: yx, xy or undecided          | `Verdict`      |
| boxes     | shards with boxes, a source | votes for the order that finds a box's class    | `Verdict`      |
| crops     | images, a source, a teacher | votes for the order that predicts the teacher   | `Verdict`      |
| axes      | both kinds of evidence      | decides between yx and xy, or raises            | yx or xy       |
| importing | shards, a source, the axes  | matches, checks and commits group by group      | label groups   |
| exporting | a store                     | writes a file for every row that has a map      | `.pt` files    |
"""
