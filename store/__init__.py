"""The label store: a Zarr v3 group that holds a label group for every image shard, on a disk or in a bucket.

| file                        | input                    | does                                             |
|-----------------------------|--------------------------|--------------------------------------------------|
| errors, text                |                          | every error on purpose; what may be printed      |
| tars, shards, patterns      | image shards             | strict tar reader, index of samples, patterns    |
| images, memory, workers     | bytes of an image        | decodes or refuses                               |
| schema, parse               | JSON attributes          | dataclasses; checked reading of hostile files    |
| layout, invariants          | label maps               | how arrays are encoded; what they must hold to   |
| place, disk, local, cloud   | a path or URL (opening)  | reading and the two commit protocols             |
| reader, group, objects, keys | a place                 | `LabelStore`, `LabelGroup`, lookup by key        |
| labels, writer              | label maps               | creates a store, commits groups                  |
| verify, garbage, merge      | a store                  | finds damage, removes leftovers, joins stores    |
| pooling, whole_image, stats | label maps               | LabelPooling's numpy twin, statistics            |
| view/                       | label maps and images    | terminal, picture, page                          |
| audit/                      | maps and original labels | wrong labels: tables, page, index                |
| browse/                     | maps, images, an index   | server of a whole store's pages                  |
| cli, upkeep, command, start |                          | the command `relabel-store`                      |

A *place* is where a store lies; a *leftover* is what a killed writer or a replaced group left there.
"""
