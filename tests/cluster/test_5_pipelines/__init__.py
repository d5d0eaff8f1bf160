"""All pipelines on the cluster at the same time: it is converged with the others once, for all tests of this folder."""
