"""Input of the annotator: from shards to batches of pixels for the teacher.

| file         | input             | does                                                           | output           |
|--------------|-------------------|----------------------------------------------------------------|------------------|
| local_copies | remote shard      | downloads it to TMPDIR, removes it when its labels are written | local file       |
| plan         | shards and store  | skips finished shards, indexes the others one ahead            | `RowRef`s        |
| decode       | `RowRef`s         | reads, decodes and resizes images in worker processes          | `DecodedBatch`es |
"""
