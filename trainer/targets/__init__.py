"""From label maps and boxes of crops to soft targets.

| file    | input                | does                                               | output              |
|---------|----------------------|----------------------------------------------------|---------------------|
| pooling | label maps and boxes | RoIAlign to logits without a dense map (pure)      | (B, C) or a grid    |
| targets | `LabelBatch`         | the paper's kinds of target (pure)                 | (B, C) soft targets |
| custom  | `Batch`              | targets by the settings, or by a caller's function | (B, C) soft targets |
"""
