/* The hooks of the C library on Zephyr. */
#include "keyfleet_port.h"

#include <string.h>
#include <zephyr/device.h>
#include <zephyr/drivers/entropy.h>
#include <zephyr/drivers/flash.h>
#include <zephyr/storage/flash_map.h>

#define SECTOR 4096u
#define WORD 8u /* a multiple of the flash driver's write block */

static const struct device *const entropy = DEVICE_DT_GET(DT_CHOSEN(zephyr_entropy));

static int32_t noise(void *context, uint8_t *sample) {
  (void)context;
  return entropy_get_entropy(entropy, sample, 1) == 0 ? 0 : -1;
}

static int32_t flash_read_hook(void *context, uint32_t offset, uint8_t *octets, size_t length) {
  return flash_area_read(context, (off_t)offset, octets, length) == 0 ? 0 : -1;
}

static int32_t flash_program_hook(void *context, uint32_t offset, const uint8_t *octets, size_t length) {
  return flash_area_write(context, (off_t)offset, octets, length) == 0 ? 0 : -1;
}

static int32_t flash_erase_hook(void *context, uint32_t sector) {
  return flash_area_erase(context, (off_t)sector * SECTOR, SECTOR) == 0 ? 0 : -1;
}

kf_status keyfleet_port_start(kf_device *device, const uint8_t id[16], uint8_t noise_state, uint16_t noise_millibits,
                              int may_format) {
  const struct flash_area *area;
  kf_hooks hooks = {NULL, noise, flash_read_hook, flash_program_hook, flash_erase_hook, keyfleet_chip_hmac, NULL, NULL};
  kf_board board = {{0}, "zephyr entropy", WORD, SECTOR, 0, 0, 30, KF_ALPHABET_OCTET, 0, KF_MEDIUM_RAW, KF_TAGS_CHECKSUM};
  kf_status status;
  if (!device_is_ready(entropy) || flash_area_open(FIXED_PARTITION_ID(keyfleet_partition), &area) != 0) return KF_BOARD;
  hooks.context = (void *)(uintptr_t)area;
  memcpy(board.device, id, sizeof board.device);
  board.sectors = (uint32_t)(area->fa_size / SECTOR) & ~1u;
  board.noise_state = noise_state;
  board.noise_millibits = noise_millibits;
  status = kf_start(device, &hooks, &board);
  if (status == KF_UNFORMATTED && may_format) {
    status = kf_format(&hooks, &board);
    if (status == KF_OK) status = kf_start(device, &hooks, &board);
  }
  return status;
}
