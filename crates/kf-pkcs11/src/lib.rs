//! The root and CA keys in a PKCS#11 token.
