"""The trainer: image shards and a label store in, a trained student out.

| file              | input                       | does                                      | output                 |
|-------------------|-----------------------------|-------------------------------------------|------------------------|
| kinds             |                             | names of targets, fills and precisions    | literal types          |
| wording           | values and errors           | quotes them, short and in one line        | texts                  |
| settings          | values of one run           | checks them once                          | `TrainSettings`        |
| overrides         | `key=value` texts, JSON     | parses them to each field's type          | `TrainSettings`        |
| device            | settings                    | makes "auto" concrete; autocast, memory   | settings               |
| meeting, ranks    | torchrun's environment      | joins processes, which agree over gloo    | `Ranks`                |
| order             | rows per group, seed, epoch | which rows form which batch (pure)        | (V, L) row numbers     |
| ranges            | files and places in them    | reads them, several at a time             | bytes                  |
| members           | tars and images' places     | compares with the tars' own headers       | bytes                  |
| loading           | a dataset                   | reads ahead in processes, errors as items | its items              |
| join, rows        | shards and a store          | checks that they belong together          | `RowTable`             |
| samples           | rows                        | images and label maps, cached by chunk    | `TrainSample`          |
| crops             | an image                    | random crop and its box; flip, normalise  | pixels, boxes          |
| batch, source     | order, samples, crops       | alike for any number of workers and ranks | `Batch`                |
| labelled          | shards and a store          | a stage for loops of one's own            | samples                |
| bins              | boxes                       | RoIAlign's weights of the cells (pure)    | cells, weights         |
| pooling           | label maps and boxes        | LabelPooling without a dense map (pure)   | (B, C) or a grid       |
| targets           | `Batch`                     | the paper's target kinds (pure)           | (B, C) soft targets    |
| mixing            | images, soft targets        | CutMix and mixup, batch-wise (pure)       | the same, mixed        |
| colour            | pixels in [0, 1]            | jitter and lighting, batch-wise (pure)    | pixels                 |
| augment           | crops, targets              | flips, colours, normalises, mixes         | images, targets        |
| model             | a timm name                 | builds and tries the student              | `nn.Module`            |
| optim             | a student                   | optimiser and schedule from timm          | both                   |
| position, student | batches                     | one update at a time; its state           | losses, `Checkpoint`   |
| valset            | val shards                  | one rank's share of the images            | batches                |
| reallabels        | real.json, keys             | checks both                               | `RealLabels`           |
| scoring           | predictions                 | exact counts, per class and by ReaL       | `Tally`                |
| evaluate          | a student and val shards    | predictions, counts over all ranks        | `Accuracy`             |
| files             | bytes                       | writes whole or not at all                | a file                 |
| checkpoint        | all state                   | whole or not at all                       | `step-*.pt`, `best.pt` |
| trained           | a checkpoint                | builds its student                        | `Trained`              |
| named             | a timm name                 | how timm prepares its images              | `TrainSettings`        |
| export            | a checkpoint                | weights and what is known of them         | safetensors            |
| metrics, board    | results                     | one JSON line each, none twice            | `metrics.jsonl`        |
| report, records   | results                     | tells and writes them, on rank 0          |                        |
| runfolder         | settings and labels         | starts or continues a run, alone          | `settings.json`        |
| prepare           | shards, labels, settings    | opens everything, on all ranks alike      | `Prepared`             |
| stop              | signals                     | remembers the first                       |                        |
| loop              | all of these                | trains                                    | `TrainResult`          |
"""
