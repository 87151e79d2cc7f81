use crate::cluster::bus::memory::tests::MemoryCluster;

crate::roster_contract!(MemoryCluster::new());
