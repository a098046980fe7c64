"""Videos in several processes: loky on one machine, Dask or Ray on a cluster."""
