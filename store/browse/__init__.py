"""Browsing: a whole store in a web browser on this machine. Needs the extras `view` and `web`.

| file   | input              | does                                             | output          |
|--------|--------------------|--------------------------------------------------|-----------------|
| rows   | a store, an index  | orders the rows: by group, or by an audit figure | rows, addresses |
| search | a store, a query   | finds rows by a part of a key or by a class      | rows            |
| pages  | rows, image shards | makes pages of thumbnails                        | HTML            |
| server | requests           | answers on 127.0.0.1 (`connections`: to all)     | HTML, JPEG      |
"""
