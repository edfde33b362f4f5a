-- When a broker took an order, and when the device said that it has it.
ALTER TABLE device_order ADD COLUMN sent INTEGER;
ALTER TABLE device_order ADD COLUMN acknowledged INTEGER;
