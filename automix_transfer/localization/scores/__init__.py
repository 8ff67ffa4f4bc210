"""MaxBoxAcc, MaxBoxAccV2, PxAP."""
