"""Which method of transfer learning helps where: `./run bench transfer`."""
