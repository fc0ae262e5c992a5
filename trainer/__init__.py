"""The trainer: image shards and a label store in, a trained student out.

| stage       | input                     | does                                             | output                  |
|-------------|---------------------------|--------------------------------------------------|-------------------------|
| types       |                           | literal types of the settings                    |                         |
| fields      | a settings class          | types, ranges and meanings of its fields as data | `Setting`               |
| settings    | values, `key=value`, JSON | checks them                                      | `TrainSettings`         |
| rendezvous  | torchrun's environment    | lets the ranks of this attempt find each other   | `TCPStore`              |
| distributed | torchrun's environment    | joins the processes, which agree over gloo       | `Ranks`                 |
| batch       |                           | one batch of crops with label maps               | `Batch`                 |
| targets/    | label maps, boxes         | LabelPooling, kinds of target (pure)             | (B, C) soft targets     |
| order/      | rows per group, seed      | assigns rows to batches (pure)                   | row numbers             |
| data/       | shards, a label store     | joins, reads, crops                              | `Batch`                 |
| augment/    | crops, targets            | flips, colours, CutMix and mixup                 | images, targets         |
| student/    | batches                   | updates a timm model; checkpoints, exports       | `Checkpoint`, `Trained` |
| evaluation/ | a student, val shards     | predicts and counts hits over all ranks          | `Accuracy`              |
| run/        | all of these              | trains in a run folder, resumes, records         | `TrainResult`           |

Each folder's docstring lists its files.
"""
