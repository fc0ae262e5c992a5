"""A whole store in a web browser on this machine. Needs the extras `view` and `web`.

| file                   | input             | does                                                     |
|------------------------|-------------------|----------------------------------------------------------|
| groups, walks, sorting | a store, an index | its rows in the order of the store or of an audit        |
| search                 | a store           | rows by a part of a key or by a class                    |
| cards, listing         | rows              | pages of thumbnails                                      |
| server, serve, command |                   | answers on 127.0.0.1; `relabel-store browse`             |
"""
