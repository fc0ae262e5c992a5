"""Storage of bytes in folders and buckets: reading, listing, and the two commit protocols.

| file   | input                    | does                                                    | output              |
|--------|--------------------------|---------------------------------------------------------|---------------------|
| base   |                          | declares the interface of a backend                     | `StorageBackend`    |
| local  | a folder                 | builds groups aside, syncs, renames                     | `LocalBackend`      |
| bucket | a URL                    | opens it with obstore; errors in one line               | a bucket            |
| cloud  | a URL of a store         | puts objects under a prefix, the commit record last     | `CloudBackend`      |
| open   | a path or a URL          | chooses the backend                                     | `StorageBackend`    |
| fetch  | a URL of an image shard  | downloads files and byte ranges of one version          | files, bytes        |
"""
