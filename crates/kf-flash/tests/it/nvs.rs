//! NVS partitions.

mod damage;
mod espressif;
mod round_trip;
mod sample;
