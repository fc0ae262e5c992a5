"""The command `relabel-annotate`.

| file      | does                                                                                  |
|-----------|---------------------------------------------------------------------------------------|
| __main__  | the command group, and `run` with its options                                         |
| run       | loads the teacher, runs the annotator (also as a service or on Ray), prints a summary |
| check     | says what speaks against training with written labels                                 |
| progress  | reporters that show a run or an export                                                |
| pack      | `pack`: folders of images to image shards                                             |
| published | `import` and `export`: published ReLabel files                                        |
| status    | `status`: the state of every shard                                                    |
| refresh   | `refresh`: corrected labels of shards to the store, without the teacher               |
"""
