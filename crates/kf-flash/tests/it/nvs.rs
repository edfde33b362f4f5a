//! NVS partitions.

mod damage;
mod esp_nvs;
mod espressif;
mod round_trip;
mod sample;
