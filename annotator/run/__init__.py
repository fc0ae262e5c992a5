"""Runs of the annotator: one process, several ranks, a service, or a Ray cluster. The store is the only checkpoint.

| file        | input                    | does                                                  | output        |
|-------------|--------------------------|-------------------------------------------------------|---------------|
| annotate    | shards, a tested teacher | passes batches through the teacher, commits meanwhile | label groups  |
| commit      | batches of label maps    | fills groups row by row, writes finished ones         | label groups  |
| rounding    | scores of a batch        | rounds them, and measures what that changes           | label maps    |
| ranks       | the environment          | finds the process's rank and its assigned shards      | `Rank`        |
| watch       | patterns                 | finds shards as they appear, once they are complete   | shards        |
| ray_cluster | shards, a Ray cluster    | annotates by actors, which may be lost                | label groups  |
| status      | a shard, a store         | finds whether the shard has its labels                | `ShardStatus` |
| refresh     | a shard, a store         | takes over the shard's present labels                 | a label group |
"""
