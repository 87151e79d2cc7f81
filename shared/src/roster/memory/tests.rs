use crate::bus::memory::tests::MemoryCluster;

crate::roster_contract!(MemoryCluster::new());
