//! Every store keeps the contract.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bottle_session::testing::store_contract::StoreUnderTest;
use bottle_session::{MemoryStore, SessionStore, store_contract};

struct Memory {
    store: MemoryStore,
    now: Arc<Mutex<SystemTime>>,
}

impl Memory {
    fn new() -> Memory {
        let now = Arc::new(Mutex::new(SystemTime::now()));
        let clock = now.clone();
        Memory { store: MemoryStore::with_clock(move || *clock.lock().unwrap()), now }
    }
}

impl StoreUnderTest for Memory {
    fn store(&self) -> &dyn SessionStore {
        &self.store
    }

    fn advance(&self, by: Duration) {
        *self.now.lock().unwrap() += by;
    }
}

store_contract!(memory, Memory::new());
