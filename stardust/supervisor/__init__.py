"""The main process: it starts generations of workers, watches them and replaces them."""
