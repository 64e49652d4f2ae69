"""Methods of transfer learning on real catalogues. `./run bench transfer`."""
