#ifndef KEYFLEET_PORT_H
#define KEYFLEET_PORT_H

#include "keyfleet.h"

/* Starts the device of this id, formatting a blank partition when `may_format` says so: in the factory and never else. */
kf_status keyfleet_port_start(kf_device *device, const uint8_t id[16], int may_format);
/* Makes the identity key, with the noise source on for as long as that takes. Before Wi-Fi and Bluetooth start, and with no
 * user of the ADC. */
kf_status keyfleet_port_make_identity(kf_device *device);

#endif
