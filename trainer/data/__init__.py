"""From shards and labels to batches of crops with their label maps.

| file         | input                       | does                                          | output             |
|--------------|-----------------------------|-----------------------------------------------|--------------------|
| join         | shards, a label store       | finds each shard's label group                | `JoinedShard`      |
| table        | label groups                | holds all rows without maps, in shared memory | `RowTable`         |
| checks       | joined shards               | checks that shards and labels belong together | `RowTable`         |
| samples      | row numbers                 | reads images and label maps, cached by chunk  | `TrainSample`      |
| crops        | an image                    | crops; flips and normalises a batch (pure)    | pixels, boxes      |
| batches      | samples                     | crops; the same for any workers and ranks     | `Batch`            |
| loading      | a dataset                   | reads ahead in worker processes               | its items          |
| division     | the processes that train    | says which part of a batch is this process's  | rank, world        |
| dataset      | shards, a label store       | samples for custom training loops             | dicts              |
| timm_dataset | shards, a label store       | crops and pooled targets for timm's train.py  | images, targets    |
"""
