"""Storage in memory keeps the contract."""

from cocaine_tx.storage.memory import MemoryStorage
from cocaine_tx.testing.storage import storage_contract

MemoryStorageTests = storage_contract(lambda case: MemoryStorage())
