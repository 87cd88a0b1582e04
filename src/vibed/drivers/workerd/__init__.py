"""The driver of workers: a V8 isolate alone in a confined workerd."""
