"""A training run.

| file    | input                    | does                                         | output                   |
|---------|--------------------------|----------------------------------------------|--------------------------|
| records | results                  | writes metrics and checkpoints               | `metrics.jsonl`, `*.pt`  |
| changes | labels then and now      | finds rows that became undecodable           | rows by group            |
| folder  | settings and data        | locks, starts or resumes a run folder        | `settings.json`          |
| prepare | shards, labels, settings | opens and compares everything on all ranks   | `Prepared`, `TrainState` |
| loop    | these                    | trains, evaluates, reports, stops on signals | `TrainResult`            |
"""
