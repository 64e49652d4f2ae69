"""Methods of transfer learning that the benchmarks compare, and that nothing serves yet."""
