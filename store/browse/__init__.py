"""Browsing: a whole store in a web browser on this machine. Needs the extras `view` and `web`.

| file       | input              | does                                             | output          |
|------------|--------------------|--------------------------------------------------|-----------------|
| rows       | a store            | numbers its groups, keeps some of them open      | groups, rows    |
| search     | a store, a query   | finds rows by a part of a key or by a class      | rows            |
| orders     | rows, an index     | orders them: by group, or by an audit figure     | rows, addresses |
| thumbnails | rows, image shards | says what each row is, and why it was found      | `Thumbnail`     |
| pages      | parameters         | makes pages of thumbnails                        | HTML            |
| server     | requests           | answers on 127.0.0.1 (`connections`: to all)     | HTML, JPEG      |
"""
