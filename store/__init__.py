"""The label store: sharded, chunked Zarr v3 groups of label maps, one group per image shard.

| file    | input                        | does                                          | output              |
|---------|------------------------------|-----------------------------------------------|---------------------|
| schema  | JSON attributes              | checks them once                              | frozen dataclasses  |
| shards  | an image shard (tar)         | strict index: keys, byte offsets, labels      | `ShardIndex`        |
| images  | the bytes of one image       | checks the header, decodes                    | (H, W, 3) uint8     |
| layout  | `StoreSchema`, rows          | names, shapes, codecs of the format           | `ArraySpec`         |
| writer  | `GroupLabels`                | builds a group aside, commits it by renaming  | a label group       |
| reader  | a store's path               | checks sizes and digests, reads lazily        | `LabelStore`        |
| pooling | one label map and a box      | LabelPooling in numpy, for looking at maps    | (C,) probabilities  |
| cli     | arguments                    | opens, calls, prints                          | `relabel-store`     |

It needs numpy, zarr, click and rich only, and never imports torch.
"""
