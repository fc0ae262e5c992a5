"""The rows of every batch of every epoch, as pure functions.

| file         | input                       | does                                                  | output      |
|--------------|-----------------------------|-------------------------------------------------------|-------------|
| permutation  | n, a seed                   | permutes 0 to n - 1, computing only what is asked for | numbers     |
| blocks       | rows per group, a seed      | orders blocks of 64 rows                              | row numbers |
| sample_order | rows per group, seed, epoch | assigns rows to batches                               | row numbers |
| first_order  | the same                    | the same for runs that an earlier release started     | row numbers |
"""
