"""Evaluation on validation shards.

| file     | input                    | does                                 | output       |
|----------|--------------------------|--------------------------------------|--------------|
| real     | real.json                | reads and checks the ReaL labels     | `RealLabels` |
| valset   | validation shards        | reads this rank's images             | batches      |
| evaluate | a network and the shards | predicts, counts hits over all ranks | `Accuracy`   |
"""
