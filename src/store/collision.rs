//! An incoming chunk meets a file of that name: keep, replace or refuse. Pure.
