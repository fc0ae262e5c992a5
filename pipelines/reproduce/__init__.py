"""The paper's ablation on the demo's scenes: `python -m pipelines.reproduce`, which `make reproduce` calls.

Stages, in the order in which data moves:

| file | input | does | output |
|---|---|---|---|
| `arms` | | says what each kind of student is trained on, and the published accuracies | `Arm` |
| `data` | folder | draws training and test scenes, annotates the training scenes | `Data` |
| `scores` | logits, labels, digits present | computes accuracies, average precision, calibration error | `Scores` |
| `students` | arms, seeds, data | trains and scores all students, several at a time | `Result`s |
| `timing` | arms, data | times annotation and an epoch of each arm, in rounds | seconds |
| `statistics` | results | tests every pair of arms over the seeds | `Comparison` |
| `report` | results, comparisons, seconds | writes tables, draws the figure | `ablation.md`, `ablation.png` |
"""
