"""The paper's ablation on the demo's scenes: `python -m pipelines.reproduce`, which `make reproduce` calls.

Stages, in the order data moves:

| file | input | does | output |
|---|---|---|---|
| `arms` | | what each student is trained on, and what was published of it | `Arm` |
| `material` | folder | draws scenes to train on and to test, annotates them | `Material` |
| `distil` | the demo's teacher | targets by the teacher's look at every crop | `CustomTargets` |
| `metrics` | logits, labels, digits present | accuracies, precision, calibration | `Scores` |
| `runs` | arm, seed, material | trains a student, or goes on with it, and scores it | `Result` |
| `students` | arms, seeds, material | all of them, as many at a time as there are cores, up to 8 | `Result`s |
| `timing` | arms, material | annotates and trains an epoch, in rounds | seconds |
| `significance` | results | compares arms, seed by seed | `Comparison` |
| `report` | results, comparisons, seconds | tables and sentences | `ablation.md` |
| `plot` | results, seconds | means, errors, seeds | `ablation.png` |
"""
