/* The hooks of the C library on ESP-IDF. */
#include "keyfleet_port.h"

#include <string.h>

#include "bootloader_random.h"
#include "esp_hmac.h"
#include "esp_partition.h"
#include "esp_random.h"

/* The eFuse block with purpose HMAC_UP. */
#define KEYFLEET_HMAC_KEY HMAC_KEY4
#define SECTOR 4096u

/* esp_random gives 32 bits that the hardware has mixed: not raw noise. Tests of it find a generator that sticks and no more,
 * so the assessment is cautious, and what counts is whether a physical source feeds it, which only we know. */
static int32_t noise(void *context, uint8_t *sample) {
  (void)context;
  *sample = (uint8_t)esp_random();
  return 0;
}

static int32_t flash_read(void *context, uint32_t offset, uint8_t *octets, size_t length) {
  return esp_partition_read(context, offset, octets, length) == ESP_OK ? 0 : -1;
}

static int32_t flash_program(void *context, uint32_t offset, const uint8_t *octets, size_t length) {
  return esp_partition_write(context, offset, octets, length) == ESP_OK ? 0 : -1;
}

static int32_t flash_erase(void *context, uint32_t sector) {
  return esp_partition_erase_range(context, (size_t)sector * SECTOR, SECTOR) == ESP_OK ? 0 : -1;
}

static int32_t chip_hmac(void *context, const uint8_t *message, size_t length, uint8_t *tag) {
  (void)context;
  return esp_hmac_calculate(KEYFLEET_HMAC_KEY, message, length, tag) == ESP_OK ? 0 : -1;
}

kf_status keyfleet_port_start(kf_device *device, const uint8_t id[16], int may_format) {
  const esp_partition_t *partition = esp_partition_find_first(ESP_PARTITION_TYPE_DATA, (esp_partition_subtype_t)0x40, "keyfleet");
  kf_hooks hooks = {(void *)(uintptr_t)partition, noise, flash_read, flash_program, flash_erase, chip_hmac, NULL, NULL};
  kf_board board = {{0}, "esp_random", 4, SECTOR, 0, 1000, 30, KF_ALPHABET_OCTET, 0, KF_MEDIUM_RAW, KF_TAGS_CHECKSUM};
  kf_status status;
  if (partition == NULL) return KF_BOARD;
  memcpy(board.device, id, sizeof board.device);
  board.sectors = (uint32_t)(partition->size / SECTOR) & ~1u;
  /* Between the boot loader and the radio nothing feeds esp_random: it is pseudo-random only. The start-up test and whatever
   * is drawn now may come of it; a production key may not, and the SDK refuses one. */
  board.noise_state = KF_NOISE_PSEUDO_RANDOM_ONLY;
  status = kf_start(device, &hooks, &board);
  if (status == KF_UNFORMATTED && may_format) {
    status = kf_format(&hooks, &board);
    if (status == KF_OK) status = kf_start(device, &hooks, &board);
  }
  return status;
}

kf_status keyfleet_port_make_identity(kf_device *device) {
  kf_status status;
  bootloader_random_enable(); /* feeds the generator from the ADC's noise; not while ADC, Wi-Fi or Bluetooth are used */
  status = kf_declare_noise(device, KF_NOISE_PHYSICAL_ON);
  if (status == KF_OK) status = kf_test_noise(device);
  if (status == KF_OK) status = kf_identity_make(device, KF_PRODUCTION);
  bootloader_random_disable();
  if (kf_declare_noise(device, KF_NOISE_PSEUDO_RANDOM_ONLY) != KF_OK && status == KF_OK) status = KF_STATE;
  return status;
}
