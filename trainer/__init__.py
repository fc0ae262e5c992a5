"""The trainer: image shards and a label store in, a trained student out.

| file       | input                       | does                                           | output               |
|------------|-----------------------------|------------------------------------------------|----------------------|
| kinds      |                             | names of targets, fills and precisions         | literal types        |
| wording    | values and errors           | quotes them, short and in one line             | texts                |
| settings   | values of one run           | checks them once                               | `TrainSettings`      |
| overrides  | `key=value` texts, JSON     | parses them to each field's type               | `TrainSettings`      |
| device     | settings                    | makes "auto" concrete; autocast, full memory   | settings             |
| order      | rows per group, seed, epoch | which rows form which batch (pure)             | (V, L) row numbers   |
| ranges     | a file and a place in it    | one read, never beyond the file                | bytes                |
| members    | a tar and one image's place | one read, checked against the tar's own header | bytes                |
| loading    | a dataset                   | reads ahead in processes, errors as values     | its items            |
| join       | shards and a store          | checks that they belong together               | `JoinedShard`        |
| samples    | a row                       | image and label map, cached by chunk           | `TrainSample`        |
| crops      | an image                    | random crop and its box; flip, normalise       | pixels, boxes        |
| source     | order, samples, crops       | batches, the same for any number of workers    | `Batch`              |
| bins       | boxes                       | RoIAlign's weights of the cells (pure)         | cells, weights       |
| pooling    | label maps and boxes        | LabelPooling without a dense map (pure)        | (B, C), (B, Y, X, C) |
| targets    | `Batch`                     | the paper's target kinds (pure)                | (B, C) soft targets  |
| mixing     | images, soft targets        | CutMix and mixup, batch-wise (pure)            | the same, mixed      |
| colour     | pixels in [0, 1]            | colour jitter, PCA lighting, batch-wise (pure) | pixels               |
| model      | a timm name                 | builds and tries the student                   | `nn.Module`          |
| optim      | a student                   | optimiser and schedule from timm               | both                 |
| student    | batches                     | one update at a time; its state                | losses, `Checkpoint` |
| valset     | val shards                  | one rank's share of the images                 | batches              |
| reallabels | real.json, keys             | checks both                                    | `RealLabels`         |
| scoring    | predictions                 | exact counts, per class and by ReaL labels     | `Tally`              |
| evaluate   | a student and val shards    | predictions and counts, over all ranks         | `Accuracy`           |
| files      | bytes                       | writes whole or not at all                     | a file               |
| checkpoint | all state                   | whole or not at all                            | `last.pt`, `best.pt` |
| trained    | a checkpoint                | builds its student                             | `Trained`            |
| named      | a timm name                 | how timm prepares its images                   | `TrainSettings`      |
| export     | a checkpoint                | weights and what is known of them              | safetensors          |
| metrics    | results                     | one JSON line each, none twice                 | `metrics.jsonl`      |
| runfolder  | settings and labels         | starts or continues a run                      | `settings.json`      |
| loop       | all of these                | trains                                         | `TrainResult`        |
"""
