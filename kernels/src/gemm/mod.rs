//! Single-precision matrix products on packed operands.
