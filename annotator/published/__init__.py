"""The files in which ReLabel's authors published their maps: reading them into a store, writing a store as such files.

A published map is `<class folder>/<name>.pt`, one tensor [2, K, A, B] of float32 or float16: scores, then class ids.
Nothing in a file says whether its cells lie as (y, x) or as (x, y); docs/published_maps.md says why that matters.

| file      | input                         | does                                        | output               |
|-----------|-------------------------------|---------------------------------------------|----------------------|
| names     | a sample's key                | refuses what must not become a path         | class folder, name   |
| source    | a folder or tar of `.pt`      | indexes it, looks samples up                | bytes                |
| claims    | keys, a source                | finds maps that no row of the store has     | a map's place        |
| maps      | bytes of a `.pt`, and back    | loads without running code, checks values   | `PublishedMap`       |
| pickles   | the pickles in a `.pt`        | refuses all that no tensor needs            | nothing              |
| axes      | agreements of readings        | decides yx or xy, or says that it cannot    | `Verdict`            |
| boxes     | shards with boxes             | asks which reading finds the box's class    | agreements           |
| crops     | a teacher, a few images       | asks which reading predicts the crop        | agreements           |
| importing | shards, a source, the axes    | matches, checks and commits group by group  | `Summary`            |
| exporting | a store                       | writes a file for every row                 | `ExportSummary`      |
"""
