"""What ``benchmarks.service`` runs in other processes: data, clients, and a peer."""
