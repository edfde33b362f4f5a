#ifndef KEYFLEET_PORT_H
#define KEYFLEET_PORT_H

#include "keyfleet.h"

/* HMAC-SHA-256 under the key that the chip holds: brought by the board. */
int32_t keyfleet_chip_hmac(void *context, const uint8_t *message, size_t length, uint8_t *tag);

/* Starts the device of this id on this board's noise: what its designer knows about the entropy driver, KF_NOISE_, and the
 * assessed min-entropy of an octet of it in thousandths of a bit. Formats a blank partition when `may_format` says so: in the
 * factory and never else. */
kf_status keyfleet_port_start(kf_device *device, const uint8_t id[16], uint8_t noise_state, uint16_t noise_millibits,
                              int may_format);

#endif
