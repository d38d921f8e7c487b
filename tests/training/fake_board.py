"""A key-value store as that of JAX's coordination service, within one process."""

import threading

from deepprism_jax.training.board import Board


class FakeStore:
    def __init__(self):
        self.values, self.lock = {}, threading.Lock()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.lock:
            assert allow_overwrite or key not in self.values
            self.values[key] = value

    def key_value_dir_get(self, prefix):
        with self.lock:
            return [(k, v) for k, v in self.values.items() if k.startswith(prefix)]


def boards(count):
    """Return the boards of as many processes."""
    store = FakeStore()
    return [Board(store, index, count) for index in range(count)]


def each(function, *columns):
    """Call a function in one thread for each row, and return results or exceptions."""
    results = [None] * len(columns[0])

    def call(number, arguments):
        try:
            results[number] = function(*arguments)
        except Exception as error:
            results[number] = error

    threads = [
        threading.Thread(target=call, args=(number, arguments))
        for number, arguments in enumerate(zip(*columns, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results
