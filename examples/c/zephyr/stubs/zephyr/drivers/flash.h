#pragma once
#include <zephyr/device.h>
