"""Policy: whether the rows of databases and the files they point at agree, and which versions of files belong to an
instant of a database. Pure: rows and tables in, findings and choices out."""
