"""Programs that the benchmarks run as other processes: servers, clients and children."""
