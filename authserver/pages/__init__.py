"""Pages for people in browsers: they meet oauth/ only through URLs and the database."""
