"""PEP 3333: a request head becomes an environ, an application is run, its response is pushed out."""
