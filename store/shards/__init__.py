"""Image shards: WebDataset tars, local or in a bucket, from a pattern to an image's pixels.

| file     | input                 | does                                          | output                        |
|----------|-----------------------|-----------------------------------------------|-------------------------------|
| patterns | `train-{00..99}.tar`  | expands braces and globs                      | `Path`s and `RemoteShard`s    |
| remote   | URL                   | requests size and time, downloads, reads      | `RemoteStat`, bytes           |
| tar      | open file             | reads headers strictly                        | `Member`s                     |
| index    | local shard           | groups members into samples, hashes the shard | `ShardIndex`                  |
| errors   | errors of reading     | names the shard                               | `ShardError`                  |
| images   | shard and byte range  | reads and checks an image                     | its bytes                     |
| headers  | an image's bytes      | reads what they say before they are decoded   | sizes, scans, chunks          |
| decode   | an image's bytes      | decodes JPEG, PNG and WebP                    | (H, W, 3) uint8 pixels        |
"""
