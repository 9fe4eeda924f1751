//! Cross-crate tests of blemish: golden vectors, properties, whole runs.
