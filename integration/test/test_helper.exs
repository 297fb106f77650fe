:ok = Cluster.start_distribution()
ExUnit.start()
